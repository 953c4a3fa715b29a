"""Where the jobs of a grid are carried out, and how they are followed.

base.py says what an executor is and how one's own is registered; local.py and slurm.py hold those there are.
jobs.py makes jobs of what a grid has to do, and tells and counts what becomes of them. watch.py shows a grid that
runs elsewhere. Nothing is imported here: a Slurm job must heed signals before it has imported much.
"""
