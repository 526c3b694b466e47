/** What the user typed or set is wrong. Ends the program with exit code 2; the message is all they see. */
export class UsageError extends Error {
  override readonly name: string = 'UsageError'
}

/** A recording that cannot be used: the message says which file, where in it, and how to get a good one. Exit code 2. */
export class RecordingError extends UsageError {
  override readonly name = 'RecordingError'
}

/** What the daemon needs from its surroundings at start is not to be had (a port in use, a missing program). Exit code 1. */
export class StartError extends Error {
  override readonly name = 'StartError'
}
