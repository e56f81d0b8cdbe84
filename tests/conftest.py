"""Settings that must hold before TensorFlow starts, and fixtures that many tests share."""

import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

from tests.browser import browser

__all__ = ["browser"]  # a fixture: every other import of it would start another browser

# A shell that starts something in the background makes it deaf to Ctrl-C, and all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _logical_cpus() -> None:
    """Four logical CPU devices, so that replicas can be tested on any machine."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
