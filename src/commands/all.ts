import { backtestCommand } from './backtest.js'
import type { Command } from './command.js'
import { demoCommand } from './demo.js'
import { doctorCommand } from './doctor.js'
import { experimentCommand } from './experiment.js'
import { incidentCommand } from './incident.js'
import { monitorCommand } from './monitor.js'
import { recordCommand } from './record.js'
import { replayCommand } from './replay.js'
import { testbedCommand } from './testbed.js'

/** Every sub-command, in the order in which --help lists them. */
export const commands: readonly Command[] = [
  monitorCommand,
  incidentCommand,
  recordCommand,
  replayCommand,
  backtestCommand,
  experimentCommand,
  testbedCommand,
  demoCommand,
  doctorCommand,
]
