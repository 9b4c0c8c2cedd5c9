"""What `krie plugin new` writes: a whole plugin that works, to be changed into another one.

`@name@` stands for the plugin's name, `@NAME@` for the same in upper case, `@kind@` for the number of its event type,
`@project@` for the name of its distribution. All names of files and folders end in `.template`, so that nobody takes
them for code or packages of KRIe's own.
"""
