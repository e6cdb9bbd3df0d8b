"""The business scenes, a package each, that the switch loads by dotted name.

A package offers ``service``, an instance of ``fengshou.protocol.service.Service``. Adding a scene changes no file
outside its package and the configuration. The modules here hold what several scenes share.
"""
