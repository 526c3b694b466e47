import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'

import { packageRoot } from './helpers/package-root.js'

const ROOT = packageRoot()
const folder = mkdtempSync(join(tmpdir(), 'meshfever-package-'))
after(() => rmSync(folder, { recursive: true }))

const { version, files } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  version: string
  files: readonly string[]
}

/** `npm test` hands its own package, folder and flags down to its children; the registry and the cache it may. */
const INHERITED =
  /^(npm_(package|lifecycle|command|config_(local_prefix|prefix|omit|include|dry_run|json))|NODE_TEST_CONTEXT|MESHFEVER_)/i
const ENVIRONMENT = Object.fromEntries(Object.entries(process.env).filter(([name]) => !INHERITED.test(name)))

/** @returns stdout */
function run(command: string, args: readonly string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8', env: ENVIRONMENT })
  assert.equal(status, 0, `${command} ${args.join(' ')}: ${error?.message ?? stderr}`)
  return stdout
}

// --ignore-scripts: `prepack` would build, and so delete dist/ under the other tests. `npm test` has just built it.
const packed = JSON.parse(
  run('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', folder], ROOT),
) as unknown
const [{ filename, files: entries }] = (Array.isArray(packed) ? packed : Object.values(packed as object)) as [
  { readonly filename: string; readonly files: readonly { readonly path: string }[] },
]

test('package: it holds the program, what the program reads, and the manifests', () => {
  const paths = entries.map(({ path }) => path)
  for (const path of [
    'package.json',
    'LICENSE',
    'dist/src/main.js',
    'dist/src/page/browser/index.html',
    'dist/src/io/prophet-worker.js',
    'topologies/online-boutique.yaml',
    'experiments/lab7-double-delay.yaml',
    'training/boutique_training.json',
    'k8s/kustomization.yaml',
    'k8s/training/boutique_training.json',
    'k8s/faults/double-delay.yaml',
  ]) {
    assert(paths.includes(path), `${path} is missing`)
  }
  for (const file of files.filter((name) => !name.endsWith('.md'))) {
    assert(
      paths.some((path) => path.startsWith(`${file}/`)),
      `nothing of ${file}/ is in the package`,
    )
  }
})

test('package: it holds no tests, no benchmarks, no TypeScript and nothing of the tool chain', () => {
  const unwanted = entries
    .map(({ path }) => path)
    .filter(
      (path) =>
        !/^(package\.json|LICENSE|\w+\.md|(dist\/src|topologies|experiments|training|k8s)\/.+)$/.test(path) ||
        /\.ts$|\.test\.|tsbuildinfo/.test(path),
    )
  assert.deepEqual(unwanted, [])
})

test('package: it installs in an empty folder and runs', () => {
  const empty = join(folder, 'empty')
  mkdirSync(empty)
  // npm would otherwise install into the next folder above that has a package.json.
  writeFileSync(join(empty, 'package.json'), '{}')
  run(
    'npm',
    ['install', join(folder, filename), '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline'],
    empty,
  )
  assert.equal(run(join(empty, 'node_modules/.bin/meshfever'), ['--version'], empty), `${version}\n`)
  assert.match(run('npx', ['--no-install', 'meshfever', '--help'], empty), /^ +meshfever monitor /m)
  assert(!existsSync(join(empty, 'node_modules/typescript')), 'a development dependency was installed')
  const training = 'node_modules/meshfever/training/frontend-cartservice_training.json'
  const pair = ['--service1=frontend', '--service2=cartservice', `--training-data-file=${training}`]
  const monitor = ['monitor', ...pair, '--prometheus-url=http://127.0.0.1:9090', '--check']
  run('npx', ['--no-install', 'meshfever', ...monitor], empty)
  const experiment = ['experiment', 'run', 'node_modules/meshfever/experiments/lab7-single-delay.yaml', '--check']
  run('npx', ['--no-install', 'meshfever', ...experiment], empty)
})
