"""The provider `acme-npu`."""
