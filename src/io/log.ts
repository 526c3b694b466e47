import pino, { type Logger } from 'pino'

import type { LogFormat } from '../commands/command.js'

export interface Log {
  readonly logger: Logger
  readonly flush: () => void
}

export function createLogger({ fileDescriptor }: { readonly format: LogFormat; readonly fileDescriptor: number }): Log {
  const destination = pino.destination({ dest: fileDescriptor, sync: false, maxLength: 2 ** 21 })
  return {
    logger: pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, destination),
    flush: () => {
      destination.flushSync()
    },
  }
}
