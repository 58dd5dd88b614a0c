"""``python -m servegen_gpu`` is the command ``servegen-gpu``."""

import sys

from servegen_gpu.cli import main

sys.exit(main())
