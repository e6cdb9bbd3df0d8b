"""Load: fleets of simulated terminals against a running switch, and what that costs both of them.

``run_load`` is all of it for a program::

    result = run_load(home, LoadPlan(rate=500, seconds=30))
    assert result.clean, result.problems

It blocks until the load is over and may run in a thread. ``own_site`` makes and runs a site for measurements;
``probe_of`` gives what tells how fast the switch's core was meanwhile.
"""

from fengshou.switch.load.pace import CoreProbe, Pace
from fengshou.switch.load.plan import LoadFailed, LoadPlan, LoadResult, Phase
from fengshou.switch.load.run import probe_of, run_load
from fengshou.switch.load.scenery import own_site

__all__ = ["CoreProbe", "LoadFailed", "LoadPlan", "LoadResult", "Pace", "Phase", "own_site", "probe_of", "run_load"]
