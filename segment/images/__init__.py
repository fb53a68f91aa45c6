"""Images and labels: bytes to arrays and back."""

import cv2

cv2.setNumThreads(1)  # one worker per core is the unit of scale; OpenCV's own threads would fight them
cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # a damaged image is an error row, not a line on stderr
