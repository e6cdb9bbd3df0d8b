"""What counts, and for whom: totals of days, commission, reports, the comparison with a host's day file."""
