"""Empty package: the comparison of strategies is in `finetune.compare`."""
