"""SimCLRv2 representations: models, losses, optimisers, training and evaluation."""
