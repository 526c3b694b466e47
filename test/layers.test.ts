import assert from 'node:assert/strict'
import { join } from 'node:path'
import test from 'node:test'

import { ESLint } from 'eslint'
import tseslint from 'typescript-eslint'

import { packageRoot } from './helpers/package-root.js'

const LAYER_RULES = new Set(['no-restricted-imports', 'no-restricted-globals', 'no-restricted-properties'])

/** The project's own configuration; without the rules that need types, so that files need not exist. */
function linter(): ESLint {
  return new ESLint({ cwd: packageRoot(), overrideConfig: tseslint.configs.disableTypeChecked as never })
}

const eslint = linter()

/** The layer rules that `code` breaks when it stands in `file`. */
async function broken(file: string, code: string): Promise<readonly (string | null)[]> {
  const [result] = await eslint.lintText(`${code}\n`, { filePath: join(packageRoot(), file) })
  const fatal = result?.messages.find(({ fatal: parsing }) => parsing === true)
  assert.equal(fatal, undefined, fatal?.message)
  return (result?.messages ?? []).map(({ ruleId }) => ruleId).filter((rule) => rule !== null && LAYER_RULES.has(rule))
}

for (const { file, code, rule } of [
  { file: 'src/core/x.ts', code: "import 'node:fs'", rule: 'no-restricted-imports' },
  { file: 'src/core/x.ts', code: "import axios from 'axios'\naxios()", rule: 'no-restricted-imports' },
  { file: 'src/core/x.ts', code: "import { Gauge } from 'prom-client'\nGauge()", rule: 'no-restricted-imports' },
  { file: 'src/core/x.ts', code: "import pino from 'pino'\npino()", rule: 'no-restricted-imports' },
  { file: 'src/core/x.ts', code: "import yargs from 'yargs'\nyargs()", rule: 'no-restricted-imports' },
  { file: 'src/core/x.ts', code: "import { x } from '../io/x.js'\nx()", rule: 'no-restricted-imports' },
  {
    file: 'src/core/x.ts',
    code: "import type { Clock } from '../io/clock.js'\nexport type X = Clock",
    rule: 'no-restricted-imports',
  },
  { file: 'src/core/x.ts', code: "import { x } from '../commands/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/core/x.ts', code: "import { x } from '../testbed/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/core/baseline/x.ts', code: "import { x } from '../../io/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/core/x.ts', code: 'export const x = Date.now()', rule: 'no-restricted-properties' },
  { file: 'src/core/x.ts', code: 'export const x = Math.random()', rule: 'no-restricted-properties' },
  { file: 'src/core/baseline/x.ts', code: 'export const x = Math.random()', rule: 'no-restricted-properties' },
  { file: 'src/core/x.ts', code: 'setTimeout(() => undefined, 1)', rule: 'no-restricted-globals' },
  { file: 'src/core/x.ts', code: 'setInterval(() => undefined, 1)', rule: 'no-restricted-globals' },
  { file: 'src/core/x.ts', code: "void fetch('x')", rule: 'no-restricted-globals' },
  { file: 'src/core/x.ts', code: "console.log('x')", rule: 'no-restricted-globals' },
  { file: 'src/core/x.ts', code: 'export const x = process.env', rule: 'no-restricted-globals' },
  { file: 'src/core/x.ts', code: 'export const x = performance.now()', rule: 'no-restricted-globals' },
  { file: 'src/io/x.ts', code: "import { x } from '../commands/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/io/x.ts', code: "import { x } from '../testbed/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/io/x.ts', code: "import '../main.js'", rule: 'no-restricted-imports' },
  { file: 'src/io/x.ts', code: 'process.exit(1)', rule: 'no-restricted-globals' },
  { file: 'src/io/x.ts', code: "console.log('x')", rule: 'no-restricted-globals' },
  { file: 'src/testbed/x.ts', code: "import { x } from '../commands/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/testbed/x.ts', code: 'process.exit(1)', rule: 'no-restricted-globals' },
  { file: 'src/testbed/x.ts', code: "import { x } from '../experiment/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/core/x.ts', code: "import { View } from 'vega'\nexport const x = View", rule: 'no-restricted-imports' },
  { file: 'src/core/x.ts', code: "import { x } from '../report/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/io/x.ts', code: "import { x } from '../report/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/io/x.ts', code: "import { x } from '../experiment/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/report/x.ts', code: "import 'node:fs'", rule: 'no-restricted-imports' },
  { file: 'src/report/x.ts', code: "import { x } from '../io/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/report/x.ts', code: "import { x } from '../testbed/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/report/x.ts', code: "import { x } from '../experiment/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/report/x.ts', code: "import pino from 'pino'\npino()", rule: 'no-restricted-imports' },
  { file: 'src/report/x.ts', code: 'export const x = Date.now()', rule: 'no-restricted-properties' },
  { file: 'src/report/x.ts', code: 'export const x = process.env', rule: 'no-restricted-globals' },
  { file: 'src/experiment/x.ts', code: "import { x } from '../commands/x.js'\nx()", rule: 'no-restricted-imports' },
  { file: 'src/experiment/x.ts', code: 'process.exit(1)', rule: 'no-restricted-globals' },
  { file: 'src/commands/x.ts', code: "import '../main.js'", rule: 'no-restricted-imports' },
  { file: 'src/commands/x.ts', code: 'export const x = process.argv', rule: 'no-restricted-globals' },
]) {
  test(`layers: ${file} may not say ${code.split('\n')[0]}`, async () => {
    assert.deepEqual(await broken(file, code), [rule])
  })
}

for (const { file, code } of [
  { file: 'src/core/x.ts', code: "import { y } from './y.js'\ny()" },
  { file: 'src/core/baseline/x.ts', code: "import { y } from '../series.js'\ny()" },
  { file: 'src/core/x.ts', code: "import { median } from 'simple-statistics'\nmedian([])" },
  { file: 'src/core/x.ts', code: 'export const x = new Date(0).toISOString() + Math.max(1, 2)' },
  { file: 'src/io/x.ts', code: "import 'node:fs'\nimport { x } from '../core/x.js'\nx(Date.now())" },
  { file: 'src/testbed/x.ts', code: "import { x } from '../io/x.js'\nimport { y } from '../core/y.js'\nx(y)" },
  { file: 'src/commands/x.ts', code: "import { x } from '../io/x.js'\nimport { y } from '../testbed/y.js'\nx(y)" },
  {
    file: 'src/commands/x.ts',
    code: "import { x } from '../experiment/x.js'\nimport { y } from '../report/y.js'\nx(y)",
  },
  { file: 'src/report/x.ts', code: "import { View } from 'vega'\nimport { x } from '../core/x.js'\nx(View)" },
  { file: 'src/report/fonts.ts', code: "import { fileURLToPath } from 'node:url'\nfileURLToPath('')" },
  {
    file: 'src/experiment/x.ts',
    code: "import 'node:fs'\nimport { x } from '../report/x.js'\nimport { y } from '../testbed/y.js'\nimport '../io/z.js'\nx(y)",
  },
  { file: 'src/testbed/x.ts', code: "import { x } from '../report/x.js'\nx()" },
  { file: 'src/main.ts', code: "import { x } from './commands/x.js'\nx(process.argv)" },
]) {
  test(`layers: ${file} may say ${code.replaceAll('\n', '; ')}`, async () => {
    assert.deepEqual(await broken(file, code), [])
  })
}
