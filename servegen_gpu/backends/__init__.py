"""What computes the law: one module per array library or device, behind one contract."""
