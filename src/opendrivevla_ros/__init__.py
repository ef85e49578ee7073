"""Vision-language-action driving models as a ROS 2 package."""

import pkgutil

# In a source tree the generated messages lie in colcon's install folder, apart from this one: both are this package.
__path__ = pkgutil.extend_path(__path__, __name__)

__version__ = "0.1.0"
