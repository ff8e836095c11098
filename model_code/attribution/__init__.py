"""What a model looks at: Shapley values of its log-odds by feature and lag, and their drift."""
