"""The best model in the time there is: what may be tried, which comes next, and what came of it.

Read `recipes` first: what can be trained, and what is one step from the best so far; then
`choosing`. `folds` and `average` are stages of their own. `headstart.flows.trials` makes recipes.
"""
