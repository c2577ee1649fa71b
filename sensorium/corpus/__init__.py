"""Corpus builder: pictures with English and Chinese words, from pinned packages under free licences, split by a written rule."""
