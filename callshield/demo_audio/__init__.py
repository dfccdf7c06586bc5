"""The voices of ``callshield demo``: a caller and an agent, and the script that made them."""
