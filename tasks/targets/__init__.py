"""What is learned: one object a kind of target, which every stage asks instead of branching."""
