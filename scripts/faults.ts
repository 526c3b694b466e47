/*
 * The fault suite: real daemons, a real Prometheus and a real Alertmanager, and every fault of the catalogue between them that
 * can be made on one machine. Each row says what was seen; one that is not as it has to be ends the run with 1.
 *
 *   npm run faults [-- --gate] [-- --row T4 --row 'T17 expired'] [-- --table docs/faults.md]
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

import { StartError } from '../src/core/errors.js'
import { killChildren } from '../src/testbed/child-process.js'
import { runSuite } from '../test/faults/run.js'

const { values } = parseArgs({
  options: {
    gate: { type: 'boolean', default: false },
    row: { type: 'string', multiple: true, default: [] },
    table: { type: 'string' },
  },
})

for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => process.exit(130))
process.once('exit', killChildren)

try {
  const { failed, table } = await runSuite({ gate: values.gate, rows: values.row, tell: (line) => console.log(line) })
  if (values.table !== undefined) writeFileSync(values.table, table)
  process.exitCode = failed === 0 ? 0 : 1
} catch (error) {
  if (!(error instanceof StartError)) throw error
  console.error(`faults: ${error.message}`)
  process.exitCode = 1
}
