"""What scripts/export_train_step.py does: model.py checks a model, steps.py traces it, package.py compiles and writes."""
