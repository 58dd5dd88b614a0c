// The server model of servegen_gpu/serving/stepwise.py, with steps that are alike made at once.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "host.h"
#include "job.h"

// Throws if the work is to be given up.
inline void look_at_stop(const SgServing& job) {
    if (job.stop && *static_cast<const volatile int32_t*>(job.stop)) throw Interrupted();
}

class Instance {
  public:
    explicit Instance(const SgServing& job) : job(job) {}

    void take(int64_t request) {
        if (idle()) clock_ns = std::max(clock_ns, job.arrival_ns[request]);
        waiting.push_back(request);
        work_ns += job.work_ns[request];
    }

    // Makes all steps that begin before a time.
    void run_until(int64_t end_ns) {
        while (!idle() && clock_ns < end_ns) step(end_ns);
    }

    // The work of requests that have not ended; the last step may have been made, and not be over.
    int64_t outstanding_ns(int64_t now_ns) const { return work_ns + (clock_ns > now_ns ? ending_ns : 0); }

  private:
    static constexpr int64_t NONE = -1;
    static constexpr int64_t LOOK_AT_STOP = 1 << 16;

    const SgServing& job;
    int64_t clock_ns = 0, work_ns = 0, ending_ns = 0, steps = 0, kv_tokens = 0, looks = 0;
    std::deque<int64_t> waiting;
    int64_t begun = NONE, input_left = 0;  // at most one request is between chunks of its input
    std::vector<int64_t> ready;            // whose input ends in the step
    // Requests that decode, by the number of the step with their last token: a heap, the first one on top.
    std::vector<std::pair<int64_t, int64_t>> decoding;

    bool idle() const { return waiting.empty() && begun == NONE && decoding.empty(); }

    int64_t running() const { return static_cast<int64_t>(decoding.size() + ready.size()) + (begun != NONE); }

    bool admits() const {
        if (waiting.empty() || running() >= job.max_sequences) return false;
        return running() == 0 || kv_tokens + job.reserved_tokens[waiting.front()] <= job.kv_tokens;
    }

    // As much of the input as the budget allows; how much that is.
    int64_t prefill(int64_t budget) {
        const int64_t tokens = std::min(input_left, budget);
        input_left -= tokens;
        if (input_left == 0) {
            ready.push_back(begun);
            begun = NONE;
        }
        return tokens;
    }

    void step(int64_t end_ns) {
        if (++looks % LOOK_AT_STOP == 0) look_at_stop(job);
        int64_t batch = static_cast<int64_t>(decoding.size()), left = job.step_tokens - batch, tokens = 0;
        if (left > 0 && begun != NONE) tokens = prefill(left);
        left -= tokens;
        while (left > 0 && admits()) {
            begun = waiting.front();
            waiting.pop_front();
            input_left = job.input_tokens[begun];
            kv_tokens += job.reserved_tokens[begun];
            job.wait_ns[begun] = clock_ns - job.arrival_ns[begun];
            const int64_t taken = prefill(left);
            tokens += taken;
            batch += job.decode_only;
            left -= taken + job.decode_only;
        }
        const int64_t input_ps = tokens > 0 ? job.prefill_step_ps + job.prefill_ps * tokens : 0;
        const int64_t duration_ns = (job.step_ps + input_ps + job.decode_ps * batch + 500) / 1000;
        int64_t alike = 1;  // until a last token, steps without input do not differ
        if (tokens == 0 && ready.empty())
            alike = std::min(decoding.front().first - steps, (end_ns - clock_ns - 1) / duration_ns + 1);
        steps += alike;
        clock_ns += alike * duration_ns;
        for (const int64_t request : ready) {
            job.ttft_ns[request] = clock_ns - job.arrival_ns[request];
            decoding.emplace_back(steps + std::max(job.output_tokens[request], 1) - 1, request);
            std::push_heap(decoding.begin(), decoding.end(), std::greater<>());
        }
        ready.clear();
        ending_ns = 0;
        while (!decoding.empty() && decoding.front().first == steps) {
            const int64_t request = decoding.front().second;
            std::pop_heap(decoding.begin(), decoding.end(), std::greater<>());
            decoding.pop_back();
            job.decode_ns[request] = clock_ns - job.arrival_ns[request] - job.ttft_ns[request];
            kv_tokens -= job.reserved_tokens[request];
            work_ns -= job.work_ns[request];
            ending_ns += job.work_ns[request];
        }
    }
};

// The instance with the least work outstanding at a time, the first of several.
inline int64_t least_loaded(std::vector<Instance>& instances, int64_t now_ns) {
    int64_t chosen = 0, least_ns = INT64_MAX;
    for (size_t k = 0; k < instances.size(); ++k) {
        instances[k].run_until(now_ns);
        const int64_t outstanding_ns = instances[k].outstanding_ns(now_ns);
        if (outstanding_ns >= least_ns) continue;
        least_ns = outstanding_ns;
        chosen = static_cast<int64_t>(k);
    }
    return chosen;
}

// The times of all requests. Instances do not know of each other, so only those that a router looks at are run up to now.
inline void serve(const SgServing& job) {
    constexpr int32_t NOWHERE = -1;
    constexpr int64_t LOOK_AT_STOP = 1 << 8;  // each of them may go past 65,536 instances
    std::vector<Instance> instances(job.instances, Instance(job));
    std::vector<int32_t> home(job.sessions, NOWHERE);
    for (int64_t request = 0; request < job.requests; ++request) {
        if ((request + 1) % LOOK_AT_STOP == 0) look_at_stop(job);
        const int64_t now_ns = job.arrival_ns[request];
        const int32_t session = job.routing == SESSION_AFFINE ? job.session[request] : NOWHERE;
        int64_t chosen;
        if (job.routing == ROUND_ROBIN)
            chosen = request % job.instances;
        else if (session >= 0 && home[session] != NOWHERE)
            chosen = home[session];
        else
            chosen = least_loaded(instances, now_ns);
        if (session >= 0) home[session] = static_cast<int32_t>(chosen);
        instances[chosen].run_until(now_ns);
        instances[chosen].take(request);
    }
    for (Instance& instance : instances) instance.run_until(INT64_MAX);
}

// When requests leave workers that take them first come, first served: a heap of when workers are free.
inline void queue(const int64_t* ready_ns, const int64_t* service_ns, int64_t requests, int64_t workers, int64_t* end_ns) {
    std::priority_queue<int64_t, std::vector<int64_t>, std::greater<>> free_ns({}, std::vector<int64_t>(workers));
    for (int64_t request = 0; request < requests; ++request) {
        end_ns[request] = std::max(ready_ns[request], free_ns.top()) + service_ns[request];
        free_ns.pop();
        free_ns.push(end_ns[request]);
    }
}
