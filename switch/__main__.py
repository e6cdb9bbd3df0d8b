"""``python -m fengshou.switch`` is ``fengshou``."""

from fengshou.switch.cli import main

main()
