"""Cedar policies: requests, evaluation, explanation, lint, test cases, replay. Pure."""
