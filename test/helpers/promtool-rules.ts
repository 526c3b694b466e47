import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { TestContext } from 'node:test'

import { stringify } from 'yaml'

import { temporaryFolder } from './temporary-folder.js'

/** Name with labels -> values in promtool's notation, one every 15 s: `0+3x120`. */
export type World = Readonly<Record<string, string>>

export interface Expectation {
  /** Minutes since the world began. */
  readonly minutes: number
  readonly query: string
  /** All series of the answer, as `name{labels}` -> value. */
  readonly is: Readonly<Record<string, number>>
}

/** Runs the rules over a world with `promtool test rules`. @returns what it finds wrong, '' when nothing */
export function promtoolTestRules(
  t: TestContext,
  rules: string,
  world: World,
  { queries = [], alerts = [] }: { readonly queries?: readonly Expectation[]; readonly alerts?: readonly unknown[] },
): string {
  const folder = temporaryFolder(t)
  writeFileSync(join(folder, 'rules.yaml'), rules)
  const file = join(folder, 'test.yaml')
  writeFileSync(
    file,
    stringify({
      rule_files: ['rules.yaml'],
      evaluation_interval: '15s',
      tests: [
        {
          interval: '15s',
          input_series: Object.entries(world).map(([series, values]) => ({ series, values })),
          promql_expr_test: queries.map(({ minutes, query, is }) => ({
            expr: query,
            eval_time: `${minutes * 60}s`,
            exp_samples: Object.entries(is).map(([labels, value]) => ({ labels, value })),
          })),
          alert_rule_test: alerts,
        },
      ],
    }),
  )
  const { status, stdout, stderr, error } = spawnSync('promtool', ['test', 'rules', file], { encoding: 'utf8' })
  return status === 0 ? '' : `${error?.message ?? ''}${stdout}${stderr}`
}
