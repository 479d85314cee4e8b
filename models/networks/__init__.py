"""Networks: functions of tensors with any leading batch shape."""
