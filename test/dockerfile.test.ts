import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'

import { packageRoot } from './helpers/package-root.js'

const ROOT = packageRoot()

interface Instruction {
  /** In capitals. */
  readonly name: string
  readonly rest: string
}

interface Stage {
  readonly image: string
  readonly name: string | undefined
  readonly instructions: readonly Instruction[]
}

interface Dockerfile {
  readonly globalArgs: Readonly<Record<string, string>>
  readonly stages: readonly Stage[]
}

/** Lines without comments and with continuations joined, as the Dockerfile reference says; no here-documents. */
function parseDockerfile(text: string): Dockerfile {
  const instructions = text
    .replace(/^\s*#.*\n/gm, '')
    .replace(/\\\n/g, ' ')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line): Instruction => {
      const [, name, rest] = /^\s*(\w+)\s+(.*)$/.exec(line)!
      return { name: name!.toUpperCase(), rest: rest!.trim() }
    })
  const first = instructions.findIndex(({ name }) => name === 'FROM')
  const globalArgs = Object.fromEntries(
    instructions.slice(0, first).map(({ rest }) => rest.split('=') as [string, string]),
  )
  const stages: { image: string; name: string | undefined; instructions: Instruction[] }[] = []
  for (const instruction of instructions.slice(first)) {
    if (instruction.name === 'FROM') {
      const [, image, name] = /^(\S+)(?:\s+AS\s+(\S+))?$/i.exec(instruction.rest)!
      stages.push({ image: image!, name, instructions: [] })
    } else {
      stages.at(-1)!.instructions.push(instruction)
    }
  }
  return { globalArgs, stages }
}

const named = (stage: Stage, name: string) => stage.instructions.filter((instruction) => instruction.name === name)
const last = (stage: Stage, name: string) => named(stage, name).at(-1)?.rest

/** @returns undefined where the instruction is in shell form */
function execForm(rest: string | undefined): readonly string[] | undefined {
  if (rest?.startsWith('[') !== true) return undefined
  return JSON.parse(rest) as readonly string[]
}

/** What a COPY takes, and the stage it takes it from when that is not the build context. */
function copies(
  stage: Stage,
): readonly { readonly from: string | undefined; readonly sources: readonly string[]; readonly target: string }[] {
  return named(stage, 'COPY').map(({ rest }) => {
    const words = rest.split(/\s+/)
    const paths = words.filter((word) => !word.startsWith('--'))
    return {
      from: words.find((word) => word.startsWith('--from='))?.slice('--from='.length),
      sources: paths.slice(0, -1),
      target: paths.at(-1)!,
    }
  })
}

/** The rules of the image that a Dockerfile breaks. */
function brokenImageRules({ stages }: Dockerfile): readonly string[] {
  const final = stages.at(-1)!
  const entrypoint = execForm(last(final, 'ENTRYPOINT'))
  const shellWords = [entrypoint, execForm(last(final, 'CMD'))].flatMap((words) => words ?? [])
  const shipped = stages.filter((stage) => stage === final || copies(final).some(({ from }) => from === stage.name))
  const rules: Readonly<Record<string, boolean>> = {
    'several stages': stages.length > 1,
    'a numeric user that is not root': /^[1-9]\d*(:[1-9]\d*)?$/.test(last(final, 'USER') ?? ''),
    'ENTRYPOINT in exec form': entrypoint !== undefined,
    'CMD in exec form': last(final, 'CMD') === undefined || execForm(last(final, 'CMD')) !== undefined,
    'node is process 1, by its path': entrypoint?.[0] === '/usr/local/bin/node',
    'nothing of the base is in it': final.image === 'scratch',
    'no command runs in it': named(final, 'RUN').length === 0,
    'no shell and no npm between the signal and the process': !shellWords.some((word) =>
      ['sh', 'bash', '-c', 'npm', 'npx'].includes(word),
    ),
    'production dependencies only': shipped.every((stage) =>
      named(stage, 'RUN').every(({ rest }) => !/npm (ci|install|i)\b/.test(rest) || rest.includes('--omit=dev')),
    ),
    'dependencies by the lock file': stages.every((stage) =>
      named(stage, 'RUN').every(({ rest }) => !/npm (install|i)\b/.test(rest)),
    ),
    'no install scripts': stages.every((stage) =>
      named(stage, 'RUN').every(({ rest }) => !rest.includes('npm ci') || rest.includes('--ignore-scripts')),
    ),
    'nothing of the build context goes straight into the image': copies(final).every(({ from }) => from !== undefined),
    'no owner but root': stages.every((stage) => named(stage, 'COPY').every(({ rest }) => !rest.includes('--chown'))),
    'no ADD': stages.every((stage) => named(stage, 'ADD').length === 0),
    'NODE_ENV is production': named(final, 'ENV').some(({ rest }) => rest === 'NODE_ENV=production'),
  }
  return Object.keys(rules).filter((rule) => rules[rule] !== true)
}

const text = readFileSync(join(ROOT, 'Dockerfile'), 'utf8')
const dockerfile = parseDockerfile(text)
const { version, files, license } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  version: string
  files: readonly string[]
  license: string
}

test('Dockerfile: the image keeps its rules', () => {
  assert.deepEqual(brokenImageRules(dockerfile), [])
})

for (const { rule, from, to } of [
  { rule: 'a numeric user that is not root', from: 'USER 65532:65532', to: 'USER node' },
  { rule: 'a numeric user that is not root', from: 'USER 65532:65532', to: 'USER 0' },
  { rule: 'a numeric user that is not root', from: 'USER 65532:65532', to: '' },
  { rule: 'CMD in exec form', from: 'CMD ["--help"]', to: 'CMD --help' },
  { rule: 'production dependencies only', from: ' --omit=dev', to: '' },
  { rule: 'no install scripts', from: ' --ignore-scripts', to: '' },
  { rule: 'dependencies by the lock file', from: 'npm ci --ignore-scripts', to: 'npm install --ignore-scripts' },
  { rule: 'NODE_ENV is production', from: 'ENV NODE_ENV=production', to: '' },
  {
    rule: 'nothing of the build context goes straight into the image',
    from: 'COPY --from=production /app /app',
    to: 'COPY . /app',
  },
  { rule: 'no owner but root', from: 'COPY --from=build', to: 'COPY --chown=65532 --from=build' },
  { rule: 'nothing of the base is in it', from: 'FROM scratch', to: 'FROM ${NODE_IMAGE}' },
  {
    rule: 'no command runs in it',
    from: 'FROM scratch\n',
    to: 'FROM scratch\nRUN rm -rf /usr/local/lib/node_modules\n',
  },
]) {
  test(`Dockerfile: "${rule}" is broken by ${to === '' ? `no ${from.trim()}` : to}`, () => {
    const broken = text.replace(from, to)
    assert.notEqual(broken, text)
    assert(brokenImageRules(parseDockerfile(broken)).includes(rule))
  })
}

test('Dockerfile: shell form and npm as process 1 are seen', () => {
  const withEntrypoint = (entrypoint: string) =>
    brokenImageRules(parseDockerfile(text.replace(/^ENTRYPOINT .*$/m, `ENTRYPOINT ${entrypoint}`)))
  assert.deepEqual(withEntrypoint('node /app/dist/src/main.js'), [
    'ENTRYPOINT in exec form',
    'node is process 1, by its path',
  ])
  assert.deepEqual(withEntrypoint('["npm", "start"]'), [
    'node is process 1, by its path',
    'no shell and no npm between the signal and the process',
  ])
})

test('Dockerfile: the program that starts is the one that package.json names', () => {
  const { bin } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { bin: { meshfever: string } }
  assert.deepEqual(execForm(last(dockerfile.stages.at(-1)!, 'ENTRYPOINT')), [
    '/usr/local/bin/node',
    '--single-threaded-gc',
    `/app/${bin.meshfever}`,
  ])
})

test('Dockerfile: every stage but the last starts from the one image that a build can replace', () => {
  assert.deepEqual(
    dockerfile.stages.slice(0, -1).map(({ image }) => image),
    dockerfile.stages.slice(0, -1).map(() => '${NODE_IMAGE}'),
  )
  assert.match(dockerfile.globalArgs['NODE_IMAGE'] ?? '', /^node:\d+-\w+-slim$/)
})

test('Dockerfile: what is copied from the build context exists and is let through by .dockerignore', () => {
  const ignore = readFileSync(join(ROOT, '.dockerignore'), 'utf8').split('\n')
  for (const stage of dockerfile.stages) {
    for (const source of copies(stage).flatMap(({ from, sources }) => (from === undefined ? sources : []))) {
      assert(existsSync(join(ROOT, source)), `${source} does not exist`)
      assert(ignore.includes(`!${source}`), `.dockerignore keeps ${source} out`)
    }
  }
})

test('Dockerfile: stages that are copied from exist, and come before', () => {
  for (const [index, stage] of dockerfile.stages.entries()) {
    const before = dockerfile.stages.slice(0, index).map(({ name }) => name)
    for (const { from } of copies(stage)) assert(from === undefined || before.includes(from), from)
  }
})

test('Dockerfile: the image has every folder that the npm package has', () => {
  const folders = files.filter((file) => !file.endsWith('.md'))
  const production = dockerfile.stages.find(({ name }) => name === 'production')!
  const copied = copies(production).map(({ target }) => target.replace(/^\.\//, ''))
  assert.deepEqual(
    folders.filter((folder) => !copied.includes(folder)),
    [],
  )
})

test('Dockerfile: the ports of the manifests are exposed', () => {
  assert.equal(last(dockerfile.stages.at(-1)!, 'EXPOSE'), '8080 8083')
})

test('Dockerfile: the labels say the version and the license of package.json', () => {
  const labels = last(dockerfile.stages.at(-1)!, 'LABEL') ?? ''
  assert(labels.includes(`org.opencontainers.image.version="${version}"`), labels)
  assert(labels.includes(`org.opencontainers.image.licenses="${license}"`), labels)
})
