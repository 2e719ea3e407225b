"""`make bench`: runs every measurement of this folder and prints its ratios."""

from bench import divergence, mmlu

divergence.main()
mmlu.main()
