"""``python -m fengshou.switch`` is ``fengshou``."""

from fengshou.switch.cli.main import main

main()
