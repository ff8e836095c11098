"""The stages of `tickline walkforward`: fits, the profit bound, the judgement, its report."""
