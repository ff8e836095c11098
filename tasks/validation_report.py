def render(reports):
    return "stub"
