@rem The "exec" of "npm start" on Windows. Elsewhere the shell has it: there it makes the server the process that npm
@rem sends signals to, instead of the shell.
@%*
