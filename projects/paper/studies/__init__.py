from . import detection, letters, shapes

STUDIES = {
    'detection': detection.STUDY,
    'letters': letters.STUDY,
    'rtmdet': shapes.RTMDET,
    'segmentation': shapes.PSPNET,
}
