import { testFuzzGroup } from './helpers/fuzz-tests.js'

testFuzzGroup('names')
