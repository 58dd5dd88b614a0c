"""deepseek-r1: 25,913 clients of a reasoning model, a first version.

Each number says where it comes from.

- published: ServeGen, arXiv 2505.09999 and NSDI '26.
- fitted: to the 73 clients of one day released as deepseek-r1 with alibaba/ServeGen, weighted by their requests.
- assumed: neither source has it.

Fitted together, over all styles: input tokens mean 1,270, quantiles 25/50/75/90/95/99 % at 41, 208, 482, 2,092,
6,714 and 23,423; output tokens mean 1,527, quantiles 10/25/50/75/90/95/99 % at 287, 427, 792, 1,499, 3,432, 5,701 and
12,607; mean reason ratio 0.70. Fields of one request are independent in the tables, so reason tokens are about 2.4
times the answer tokens in all; the published factor is 4, and the released clients with independent fields give 2.9.
"""

from __future__ import annotations

from servegen_gpu.clients.presets import Gaps, Preset, Rhythm, Style, Tokens

MAX_INPUT = 57_344  # fitted: the longest released is 57,284
MAX_OUTPUT = 32_768  # fitted: the longest released


def _input(median: float, sigma: float) -> Tokens:
    """A body of its own and one tail for all styles (fitted; the form of mixture is published)."""
    return Tokens(median, sigma, MAX_INPUT, tail_share=0.04, tail_from=290, tail_exponent=1.1)


STYLES = (
    # shares: assumed; lengths: fitted; low_ratio_share: fitted as the clients with such lengths have it
    Style("chat", 0.25, _input(21, 0.56), Tokens(949, 0.41, MAX_OUTPUT), low_ratio_share=0.30),
    Style("question", 0.20, _input(144, 0.72), Tokens(1222, 0.79, MAX_OUTPUT), low_ratio_share=0.30),
    Style("task", 0.30, _input(364, 0.48), Tokens(375, 0.41, MAX_OUTPUT), low_ratio_share=0.10),
    Style("problem", 0.10, _input(60, 0.81), Tokens(4845, 0.72, MAX_OUTPUT), low_ratio_share=0.10),
    Style("document", 0.15, _input(3710, 1.25), Tokens(859, 0.98, MAX_OUTPUT), low_ratio_share=0.25),
)

GAPS = (
    # published: most clients near a Poisson process or calmer, a few bursty; shares: assumed, with fewer bursty
    # clients than the released top clients have (CV quantiles 25/50/75/90 % at 0.94, 1.02, 1.86 and 5.56)
    Gaps("calm", 0.25, "Gamma", 1.78),  # CV 0.75, fitted: the 10 % quantile
    Gaps("poisson", 0.45, "Exponential", 1.0),  # CV 1, fitted: the median
    Gaps("uneven", 0.20, "Weibull", 0.70),  # CV 1.46, fitted: the volume of released Weibull windows is 0.26
    Gaps("bursty", 0.10, "Gamma", 0.0625),  # CV 4, fitted: between the quantiles of 75 and 90 %
)

RHYTHMS = (
    # fitted: the sum of rates over the day has a first harmonic of 0.52 that peaks at 0.6 h on the data's clock,
    # whose time zone is not stated; some released clients are steady; shares and the spread of peaks: assumed
    Rhythm("steady", 0.25, swing=0.0, peak_hour=0.0),
    Rhythm("early", 0.25, swing=0.95, peak_hour=21.6),
    Rhythm("usual", 0.25, swing=0.95, peak_hour=0.6),
    Rhythm("late", 0.25, swing=0.95, peak_hour=3.6),
)

PRESET = Preset(
    name="deepseek-r1",
    clients=25_913,  # published
    requests_per_week=14.0e6,  # published
    head_offset=2.0,  # assumed: the largest client has 13 % of the requests
    head_exponent=1.4203,  # fitted to the published share of the top 10 of 25,913: one half
    low_ratio=(17.0, 27.7),  # fitted: mode 0.375, mean 0.38; two modes are published
    high_ratio=(4.6, 1.25),  # fitted: mode 0.935, mean 0.79
    styles=STYLES,
    gaps=GAPS,
    rhythms=RHYTHMS,
)
