"""From songs to clips: decode, find the solo parts, cut at silences, judge, split by song (``timbre-ray data prepare``).

settings.py    what one may choose
decode.py      files of any kind to samples
transcribe.py  Basic Pitch: samples to notes
notes.py       notes to the solo ratio and the solo parts
cutting.py     a part to pieces that end at silences
quality.py     level and clipping
duplicates.py  clips that sound the same
split.py       which songs are held out
song.py        one song to judged pieces
run.py         all songs to a folder with its manifest
picture.py     one song's picture; table.py: the summary
"""
