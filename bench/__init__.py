"""What Fengshou costs, stage by stage and as a whole, beside what people would use instead.

Figures are CPU of one process per message, and ratios to a peer that was measured in the same run: those can be
compared between machines and between busy and quiet moments, wall times cannot. ``make bench`` runs all of it.
"""
