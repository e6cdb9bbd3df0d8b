"""A whole service network in one process: real code, simulated time, network, disk and trouble, all from one seed."""
