"""Sources of training images for tf.data. TensorFlow begins here."""
