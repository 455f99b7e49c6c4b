"""What is passed around: models, targets, requests, options, recipes, plans, events. Values, without behaviour."""
