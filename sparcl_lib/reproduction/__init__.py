"""Rows of published tables: runs that are planned, what they cost, our numbers beside theirs."""
