from . import detection, letters

STUDIES = {'detection': detection.STUDY, 'letters': letters.STUDY}
