package image

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// NonRoot is the uid and gid that has a name in /etc/passwd besides root and
// nobody, for those who run the image without root.
const NonRoot = 65532

// Etc is what a program expects of a system: who is who, where names are looked
// up, a folder for temporary files, root's home.
func Etc() []File {
	return []File{
		Text("etc/passwd", fmt.Sprintf(`root:x:0:0:root:/root:/sbin/nologin
nobody:x:65534:65534:nobody:/:/sbin/nologin
nonroot:x:%[1]d:%[1]d:nonroot:/tmp:/sbin/nologin
`, NonRoot)),
		Text("etc/group", fmt.Sprintf(`root:x:0:
nobody:x:65534:
nonroot:x:%d:
`, NonRoot)),
		Text("etc/nsswitch.conf", "hosts: files dns\n"),
		// Readable for all: it is the working folder for any uid.
		Dir("root", 0o755),
		// A new volume takes its mode from here: any uid can keep things in it.
		Dir("root/derper-certs", 0o777|fs.ModeSticky),
		Dir("tmp", 0o777|fs.ModeSticky),
	}
}

// notice matches the files of a module that its licence asks to be passed on.
var notice = regexp.MustCompile(`(?i)^(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|PATENTS|UNLICENSE)([.-].*)?$`)

// Notices are the licence notices in a module's tree, as files below
// usr/share/licenses/<name>. Those in folders that no program links, such as
// testdata, are left out. A tree without any is an error: something would be
// shipped without its licence.
func Notices(name, tree string) ([]File, error) {
	var files []File
	err := fs.WalkDir(os.DirFS(tree), ".", func(rel string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); rel != "." && (base == "testdata" || strings.HasPrefix(base, "_") || strings.HasPrefix(base, ".")) {
				return fs.SkipDir
			}
			return nil
		}
		if !notice.MatchString(d.Name()) || strings.HasSuffix(d.Name(), ".go") {
			return nil
		}
		f, err := OnDisk(path.Join("usr/share/licenses", name, rel), 0o644, filepath.Join(tree, filepath.FromSlash(rel)))
		files = append(files, f)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("licence notices of %s: %s: %w", name, tree, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("licence notices of %s: none found in %s", name, tree)
	}
	return files, nil
}
