"""Images and labels: decode bytes to arrays, resize, and encode."""

import cv2

cv2.setNumThreads(1)  # workers scale by process, one per core; OpenCV's own threads would compete with them
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a damaged image is an error row, no log line
