"""One file a sub-command of `handos`, imported when it is called."""
