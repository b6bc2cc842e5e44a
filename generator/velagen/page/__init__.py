"""Pages that are read without a network: charts, tables, and figures in words."""
