// Has no code: compiling it makes the headers that the tests share.
int main() { return 0; }
