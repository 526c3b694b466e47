import js from '@eslint/js'
import tseslint from 'typescript-eslint'

/** The outside world, which core/ must not know: it is numbers in, values out. */
const EDGES = ['node:*', 'axios', 'prom-client', 'pino', 'yargs', 'yargs/*', 'yaml']

/** What draws. */
const DRAWING = ['vega', 'vega-lite', '@resvg/*']

/** Numbers in, values out: no clock, no chance, no surroundings. */
const PURE = {
  'no-restricted-globals': [
    'error',
    'setTimeout',
    'setInterval',
    'setImmediate',
    'fetch',
    'console',
    'process',
    'performance',
  ],
  'no-restricted-properties': ['error', { object: 'Date', property: 'now' }, { object: 'Math', property: 'random' }],
}

/**
 * Who may import whom: main -> commands -> { experiment, report, testbed, io, page, core }, experiment -> { report, testbed, io, core },
 * testbed -> { report, io, core }, io -> { page, core }, page -> core, report -> core.
 */
const layer = (files, forbidden, extra = {}) => ({
  files,
  rules: {
    'no-restricted-imports': [
      'error',
      { patterns: [{ group: forbidden, message: 'This layer may not import that one.' }] },
    ],
    ...extra,
  },
})

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/'] },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  ...tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ['eslint.config.js'] } } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/prefer-nullish-coalescing': 'error',
      // Istio and Prometheus documents are read by key; noPropertyAccessFromIndexSignature wants the brackets.
      '@typescript-eslint/dot-notation': 'off',
    },
  },
  layer(
    ['src/core/**'],
    [
      ...EDGES,
      ...DRAWING,
      '**/io/*',
      '**/commands/*',
      '**/testbed/*',
      '**/report/*',
      '**/experiment/*',
      '**/page/*',
      '**/main.js',
    ],
    PURE,
  ),
  {
    // Index arithmetic over arrays of known length: a check at each step would hide the formula.
    files: ['src/core/baseline/**'],
    rules: { '@typescript-eslint/no-non-null-assertion': 'off' },
  },
  layer(['src/io/**'], ['**/commands/*', '**/testbed/*', '**/report/*', '**/experiment/*', '**/main.js']),
  layer(
    ['src/page/*.ts'],
    ['**/io/*', '**/commands/*', '**/testbed/*', '**/report/*', '**/experiment/*', '**/main.js'],
  ),
  layer(
    ['src/report/**'],
    [
      ...EDGES,
      // Where the font lies is an address; what reads it is the drawing library.
      '!node:url',
      '**/io/*',
      '**/commands/*',
      '**/testbed/*',
      '**/experiment/*',
      '**/page/*',
      '**/main.js',
    ],
    PURE,
  ),
  layer(['src/testbed/**'], ['**/commands/*', '**/experiment/*', '**/page/*', '**/main.js']),
  layer(['src/experiment/**'], ['**/commands/*', '**/page/*', '**/main.js']),
  layer(['src/commands/**'], ['**/main.js']),
  {
    files: ['src/**'],
    ignores: ['src/main.ts', 'src/core/**', 'src/report/**'],
    rules: {
      'no-restricted-globals': ['error', { name: 'process', message: 'Only main.ts touches process.' }, 'console'],
    },
  },
  {
    files: ['test/**', 'bench/**', 'scripts/**'],
    rules: {
      '@typescript-eslint/no-floating-promises': [
        'error',
        { allowForKnownSafeCalls: [{ from: 'package', package: 'node:test', name: ['test', 'describe', 'it'] }] },
      ],
      '@typescript-eslint/no-non-null-assertion': 'off',
    },
  },
  // k6 runs its script itself, and knows these.
  {
    files: ['k8s/load/*.js'],
    ...tseslint.configs.disableTypeChecked,
    languageOptions: {
      ...tseslint.configs.disableTypeChecked.languageOptions,
      globals: { __ENV: 'readonly', open: 'readonly' },
    },
  },
  { files: ['eslint.config.js'], ...tseslint.configs.disableTypeChecked },
)
