"""Released data in and out: other people's formats to our tables, and our tables to other people's formats.

In, by ``srgpt import``: ``reading`` splits a file of any size into rows, ``osd`` and ``llava`` read a row, both by
``turns`` (regions and their mentions), ``masks`` and ``recognition`` (what a question asks), ``pixels`` fetches
pictures, and ``importing`` writes the tables. Out, by ``srgpt publish``: ``publishing`` walks the tables,
``osd_folder`` and ``huggingface`` write.
"""
