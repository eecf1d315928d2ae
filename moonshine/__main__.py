import sys

from moonshine.cli import main

sys.exit(main())
