"""The search for a better specification: an Optuna study, its trials, its report."""
